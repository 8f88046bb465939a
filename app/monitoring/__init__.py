"""What happens to the served versions after training: the rows that they predict for, and how right they were."""
