"""What is remembered: records, their keys and lifetimes, wrapping; Redis and memory stores."""
