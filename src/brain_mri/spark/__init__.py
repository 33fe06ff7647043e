"""The Spark session, batch functions over DataFrames, and a launcher for tasks."""
