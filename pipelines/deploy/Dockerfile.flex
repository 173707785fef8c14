# The launcher of the Flex Template: the worker's image with Google's launcher beside it.
#   docker build -f pipelines/deploy/Dockerfile.flex --build-arg WORKER=IMAGE -t LAUNCHER . && docker push LAUNCHER
ARG WORKER
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:20260122_RC00 AS launcher

FROM ${WORKER}
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/reservoir/pipelines/deploy/flex_template.py
ENTRYPOINT ["/opt/google/dataflow/python_template_launcher"]
