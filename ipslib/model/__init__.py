"""The network: encoder, cross-attention pooling and the whole that selects and classifies."""
