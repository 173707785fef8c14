# The launcher of the Flex Template: the worker's image with Google's launcher beside it.
#   docker build -f pipelines/deploy/Dockerfile.flex --build-arg WORKER=IMAGE -t LAUNCHER . && docker push LAUNCHER
ARG WORKER
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base AS launcher

FROM ${WORKER}
# The launcher writes its log and its result where only root may.
USER root
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/reservoir/pipelines/deploy/flex_template.py
ENTRYPOINT ["/opt/google/dataflow/python_template_launcher"]
