"""Check Beam's flags without importing Beam, and build its pipeline options from them.

Importing Beam takes seconds, so flags are checked against a frozen table of the flags of the pinned version;
tests/pipelines/test_beam_flags.py compares the table with what Beam registers.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shards.command_line import suggestion
from shards.storage.errors import UsageError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

_SWITCHES = """
allow_non_deterministic_key_coders allow_unsafe_triggers auto_unique_labels direct_embed_docker_python
disable_beartype enable_artifact_caching enable_bucket_read_metric_counter enable_bucket_write_metric_counter
enable_gcsio_blob_generation enable_hot_key_logging enable_streaming_engine exclude_infer_dataclass_field_type
flink_submit_uber_jar force_cloudpickle_deterministic_coders hdfs_full_urls no_auth
no_direct_runner_use_stacked_bundle no_gcsio_throttling_counter no_pipeline_type_check no_save_main_session
no_use_public_ips no_wait_until_finish performance_runtime_type_check profile_cpu profile_memory
profiler_stop_after_crash requirements_cache_only_sources runtime_type_check s3_disable_ssl save_main_session
spark_submit_uber_jar streaming update use_public_ips use_transform_service
"""

SWITCHES = frozenset(_SWITCHES.split())
"""Flags without a value."""

_VALUED = """
application_id artifact_endpoint artifact_port artifacts_dir autoscaling_algorithm azure_connection_string
azure_managed_identity_client_id beam_plugin beam_plugins beam_services blob_service_endpoint bootstrap_servers
cloud_build_machine_type create_from_snapshot dataflow_endpoint dataflow_job_file dataflow_kms_key
dataflow_service_option dataflow_service_options default_sdk_harness_log_level direct_num_workers
direct_runner_bundle_repeat direct_running_mode direct_test_splits disk_provisioned_iops
disk_provisioned_throughput_mibps disk_size_gb disk_type docker_registry_push_url dry_run
element_processing_timeout_minutes environment_cache_millis environment_config environment_option
environment_options environment_type expansion_port experiment experiments extra_package extra_packages
file_to_stage files_to_stage flexrs_goal flink_job_server_jar flink_master flink_version gbek gcp_oauth_scope
gcp_oauth_scopes gcs_custom_audit_entries gcs_custom_audit_entry hdfs_host hdfs_port hdfs_user
impersonate_service_account jar_cache_dir job-server-timeout job_endpoint job_name job_port
job_server_java_launcher job_server_jvm_properties job_server_jvm_property job_server_timeout
kafka_streams_job_server_jar label labels machine_type maven_repository_url max_cache_memory_usage_mb
max_num_workers max_parallelism min_cpu_platform network num_workers number_of_worker_harness_threads
on_success_matcher output_executable_path parallelism pickle_library prebuild_sdk_container_base_image
prebuild_sdk_container_engine prism_beam_version_override prism_location prism_log_kind prism_log_level
profile_location profile_postprocess_interval_sec profile_sample_rate profile_temp_location
profile_upload_interval_sec profiler_agent profiler_extra_arg profiler_extra_args profiler_extra_env_var
profiler_extra_env_vars profiler_stop_after_sec project pubsub_root_url region requirements_cache
requirements_file resource_hint resource_hints runner s3_access_key_id s3_api_version s3_endpoint_url
s3_region_name s3_secret_access_key s3_session_token s3_verify sdk_container_image
sdk_harness_container_image_overrides sdk_harness_log_level_overrides sdk_location sdk_worker_parallelism
service_account_email setup_file spark_job_server_jar spark_master_url spark_rest_url spark_version
staging_location subnetwork temp_location template_location transform_name_mapping type_check_additional
type_check_strictness update_compatibility_version user_agent wait_until_finish_duration worker_disk_type
worker_harness_container_image worker_machine_type worker_region worker_zone zone
"""

VALUED = frozenset(_VALUED.split())
"""Flags with a value, `--flag=value` or `--flag value`."""

FLAGS = frozenset(f"--{name}" for name in SWITCHES | VALUED)

LOCAL, DATAFLOW = "FnApiRunner", "DataflowRunner"
"""The default runner, and the runner whose workers can read only files in a bucket."""

_OPTIONAL = frozenset(("--update_compatibility_version",))
"""Flags whose value is optional."""


def check(words: Sequence[str]) -> None:
    """Raise `UsageError` unless all words are flags of Beam with their values."""
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        flag, equals, _ = word.partition("=")
        if flag not in FLAGS:
            hint = suggestion(flag, FLAGS) if flag.startswith("--") else ""
            hint = hint or "; see --help, and Beam's documentation for its own flags"
            raise UsageError(f"unknown argument {word!r}{hint}")
        if flag[2:] in VALUED and not equals:
            if remaining and not remaining[0].startswith("--"):
                remaining.pop(0)
            elif flag not in _OPTIONAL:
                raise UsageError(f"{flag} needs a value: {flag}=VALUE")


def value(words: Sequence[str], name: str) -> str | None:
    """Return the value of the last flag `--name` among words that `check` accepted, or `None` without such a flag."""
    last = None
    for index, word in enumerate(words):
        flag, equals, text = word.partition("=")
        if flag == f"--{name}":
            last = text if equals else next(iter(words[index + 1 :]), None)
    return last


def runner(words: Sequence[str]) -> str:
    """Return the name of the runner that the flags select."""
    return value(words, "runner") or LOCAL


def parser() -> argparse.ArgumentParser:
    """Return Beam's parser of its own flags; imports Beam."""
    from apache_beam.options import pipeline_options

    beam_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for group in pipeline_options.PipelineOptions.__subclasses__():
        if group.__module__ == pipeline_options.__name__:
            # Beam annotates its own subclass of the parser, but uses nothing of it.
            group._add_argparse_args(beam_parser)  # pyright: ignore[reportArgumentType]
    return beam_parser


def beam_options(words: Sequence[str]) -> PipelineOptions:
    """Return Beam's options from its flags, by default with one local process per core; imports Beam.

    Raises `UsageError` for an unknown flag or an invalid value.
    """
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

    check(words)
    try:
        parser().parse_known_args(words)
    except (argparse.ArgumentError, SystemExit) as error:
        raise UsageError(f"a Beam flag has an invalid value: {error}") from None
    if runner(words) != LOCAL:
        return PipelineOptions([*words])
    defaults = [f"--runner={LOCAL}"]
    if value(words, "direct_num_workers") is None:
        defaults.append(f"--direct_num_workers={len(os.sched_getaffinity(0))}")
    if value(words, "direct_running_mode") is None:
        defaults.append("--direct_running_mode=multi_processing")
    options = PipelineOptions([*words, *defaults], save_main_session=False)
    direct = options.view_as(DirectOptions)
    if direct.direct_num_workers == 1:
        # A single worker runs in this process, which saves the start of another one.
        direct.direct_running_mode = "in_memory"
    return options
