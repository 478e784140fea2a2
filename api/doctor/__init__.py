"""`troupe doctor`: what is installed, found and slow, with the line that mends it. Facts here, judgements pure."""
