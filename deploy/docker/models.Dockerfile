# A model repository as an image. The context is the repository itself, as `visiongate export` wrote it:
#   docker build --file deploy/docker/models.Dockerfile --tag visiongate-models model_repository
# The image has no program in it: Kubernetes mounts it as a volume of the kind `image`. For an init container that
# copies the models add --target copy.
ARG BASE=busybox:1.37

# Copies all to /copy, an empty volume.
FROM ${BASE} AS copy
LABEL org.opencontainers.image.title="visiongate-models"
# Any user may read them, whatever umask they were exported with.
COPY --chmod=755 . /models
USER 10001:10001
CMD ["cp", "-R", "/models/.", "/copy"]

FROM scratch AS models
LABEL org.opencontainers.image.title="visiongate-models"
COPY --chmod=755 . /models
