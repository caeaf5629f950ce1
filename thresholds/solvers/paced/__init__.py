"""The practical table (THEORY 3.5, 6.5): pace, cap and watermark."""
