"""What tests start and watch for themselves: private servers, worker processes, waiting, leak checks."""
