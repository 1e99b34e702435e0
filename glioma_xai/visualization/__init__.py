"""Pictures of relevance and pages about runs; takes plain data, computes no score."""
