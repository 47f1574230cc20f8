"""What people look at: pictures, diagrams and pages; nothing here is read back by the program."""
