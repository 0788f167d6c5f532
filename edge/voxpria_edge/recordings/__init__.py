"""What is spoken before a call is recorded, and what is made of it afterwards."""
