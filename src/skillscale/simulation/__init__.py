"""Known truths, designs of experiments tried on them, and their scores."""
