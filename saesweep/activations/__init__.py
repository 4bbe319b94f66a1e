"""From documents to shuffled batches of activations, and the held-out parts. Knows nothing of trials."""
