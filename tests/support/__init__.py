"""What tests of several folders share: inputs, oracles, and ways to run things."""
