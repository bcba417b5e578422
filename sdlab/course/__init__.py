"""What the course has around the library: exercises, completeness, copies that outlive Colab, the demo."""
