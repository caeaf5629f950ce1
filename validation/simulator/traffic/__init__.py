"""What requests and their clients do beside arriving: one file for each kind of traffic."""
