"""Above capacity and in a closed loop: bounded queues, patience, a fixed number of clients."""
