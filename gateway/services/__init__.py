"""The gRPC services: protobuf in, a pipeline, protobuf out. `registry` finds them."""
