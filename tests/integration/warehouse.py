"""A test's BigQuery dataset in few words."""

import io
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.cloud import bigquery

from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS, Cloud

SCHEMA = {"name": "STRING", "steps": "INTEGER", "score": "FLOAT", "done": "BOOLEAN"}

Row = Mapping[str, Any]

_job_numbers = itertools.count()


class Warehouse:
    """The test's dataset in few words; nothing is retried, so that a refusal is seen at once."""

    def __init__(self, client: bigquery.Client, cloud: Cloud) -> None:
        self.client = client
        self.cloud = cloud

    def new_job_id(self) -> str:
        """An id that no test of this sandbox has used: jobs belong to the project, not to a dataset."""
        return f"{self.cloud.dataset}-{next(_job_numbers)}"

    def create(self, table: str, schema: Mapping[str, str] = SCHEMA) -> str:
        fields = [bigquery.SchemaField(name, type_) for name, type_ in schema.items()]
        self.client.create_table(
            bigquery.Table(self.cloud.table(table), schema=fields), retry=NO_RETRY, timeout=TIMEOUT_SECONDS
        )
        return self.cloud.table(table)

    def columns(self, table: str) -> dict[str, str]:
        found = self.client.get_table(table, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
        return {field.name: field.field_type for field in found.schema}

    def ask(self, sql: str, *, job_id: str | None = None) -> list[tuple[Any, ...]]:
        job = self.client.query(
            sql, job_id=job_id, retry=NO_RETRY, job_retry=NO_RETRY, timeout=TIMEOUT_SECONDS
        )
        rows = job.result(retry=NO_RETRY, job_retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
        return [row.values() for row in rows]

    def rows(self, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
        return self.ask(f"SELECT {columns} FROM `{table}` ORDER BY 1")  # noqa: S608 - the test's own table

    def stream(self, table: str, rows: Sequence[Row], **options: Any) -> dict[int, list[tuple[str, str]]]:
        """Insert, and by row what was refused: reasons and locations."""
        errors = self.client.insert_rows_json(table, rows, retry=NO_RETRY, timeout=TIMEOUT_SECONDS, **options)
        return {
            error["index"]: [(detail["reason"], detail["location"]) for detail in error["errors"]]
            for error in errors
        }

    def load(
        self,
        table: str,
        rows: Sequence[Row],
        *,
        job_id: str | None = None,
        schema: Mapping[str, str] | None = None,
        with_size: bool = False,
        **options: Any,
    ) -> bigquery.LoadJob:
        config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON", **options)
        if schema is not None:
            config.schema = [bigquery.SchemaField(name, type_) for name, type_ in schema.items()]
        content = "\n".join(json.dumps(row) for row in rows).encode()
        job = self.client.load_table_from_file(
            io.BytesIO(content),
            table,
            # With a size the client sends one multipart request, without it a resumable upload.
            size=len(content) if with_size else None,
            job_id=job_id,
            job_config=config,
            num_retries=0,
            timeout=TIMEOUT_SECONDS,
        )
        job.result(retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
        return job
