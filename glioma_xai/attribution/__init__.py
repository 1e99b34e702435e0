"""Layer-wise relevance propagation whose relevance is exactly differentiable in the weights."""
