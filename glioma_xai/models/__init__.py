"""Networks, and what layers they have."""
