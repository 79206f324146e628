"""What loyalty keeps of people for occasions: birthday, time zone, whether the profile is complete."""
