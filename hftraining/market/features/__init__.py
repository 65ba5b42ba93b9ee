"""Features: causal columns made of bars, the sets they come in, and the scaler that is fitted on training days."""
