"""Solutions of notebook 02's exercises."""


def best_step(rows):
    """The step whose validation loss is lowest."""
    measured = [row for row in rows if "validation_loss" in row]
    return min(measured, key=lambda row: row["validation_loss"])["step"]
