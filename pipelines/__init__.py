"""What people run by hand or on a schedule: collect, fine-tune, evaluate, publish the results."""
