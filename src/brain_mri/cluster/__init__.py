"""HDFS, Spark and YARN daemons on this machine; the health of any cluster."""
