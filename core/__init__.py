"""What every part shares: errors, clock, positions, frame schemas, quantities, metric names."""
