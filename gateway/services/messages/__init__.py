"""What services share: messages of several services, to and from the pipelines' arguments."""
