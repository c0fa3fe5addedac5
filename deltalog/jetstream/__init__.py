"""NATS JetStream: the connection, its fast client, streams and buckets."""
