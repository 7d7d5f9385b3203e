# The permissions of each role are those that the program was seen to use: a test compares them.
locals {
  roles = {
    writer_bucket = [
      "storage.buckets.get",
      "storage.objects.create",
      "storage.objects.delete",
      "storage.objects.get",
      "storage.objects.list",
    ]
    writer_dataset = [
      "bigquery.datasets.get",
      "bigquery.tables.create",
      "bigquery.tables.get",
      "bigquery.tables.getData",
      "bigquery.tables.list",
      "bigquery.tables.update",
      "bigquery.tables.updateData",
    ]
    reader_bucket = [
      "storage.buckets.get",
      "storage.objects.get",
      "storage.objects.list",
    ]
    reader_dataset = [
      "bigquery.datasets.get",
      "bigquery.tables.get",
      "bigquery.tables.getData",
    ]
    # Queries and load jobs belong to the project: nothing narrower grants them.
    jobs = [
      "bigquery.jobs.create",
    ]
  }

  writer = "serviceAccount:${google_service_account.writer.email}"
}

resource "google_storage_bucket" "results" {
  project  = var.project_id
  name     = var.bucket_name
  location = var.location

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  # No lifecycle rule: one that deletes would delete results.
  versioning {
    enabled = var.versioning
  }

  soft_delete_policy {
    retention_duration_seconds = var.soft_delete_days * 24 * 60 * 60
  }

  lifecycle {
    prevent_destroy = true
  }
}

# No default expiration: it would delete tables, or their rows.
resource "google_bigquery_dataset" "results" {
  project    = var.project_id
  dataset_id = var.dataset_id
  location   = var.location

  delete_contents_on_destroy = false

  lifecycle {
    prevent_destroy = true
  }
}

# It has no key: what runs in Google Cloud acts as it by itself, other machines by workload identity federation.
resource "google_service_account" "writer" {
  project      = var.project_id
  account_id   = var.service_account_id
  display_name = "pixaris-sync"
  description  = "Carries Pixaris runs to bucket ${var.bucket_name} and dataset ${var.dataset_id}."
}

resource "google_project_iam_custom_role" "roles" {
  for_each = local.roles

  project     = var.project_id
  role_id     = "${var.role_prefix}_${each.key}"
  title       = "pixaris-sync: ${replace(each.key, "_", ", ")}"
  description = "What pixaris-sync uses, and nothing else."
  permissions = each.value
}

resource "google_storage_bucket_iam_member" "writer" {
  bucket = google_storage_bucket.results.name
  role   = google_project_iam_custom_role.roles["writer_bucket"].name
  member = local.writer
}

resource "google_bigquery_dataset_iam_member" "writer" {
  project    = var.project_id
  dataset_id = google_bigquery_dataset.results.dataset_id
  role       = google_project_iam_custom_role.roles["writer_dataset"].name
  member     = local.writer
}

resource "google_project_iam_member" "writer" {
  project = var.project_id
  role    = google_project_iam_custom_role.roles["jobs"].name
  member  = local.writer
}

resource "google_storage_bucket_iam_member" "readers" {
  for_each = var.readers

  bucket = google_storage_bucket.results.name
  role   = google_project_iam_custom_role.roles["reader_bucket"].name
  member = each.value
}

resource "google_bigquery_dataset_iam_member" "readers" {
  for_each = var.readers

  project    = var.project_id
  dataset_id = google_bigquery_dataset.results.dataset_id
  role       = google_project_iam_custom_role.roles["reader_dataset"].name
  member     = each.value
}

resource "google_project_iam_member" "readers" {
  for_each = var.readers

  project = var.project_id
  role    = google_project_iam_custom_role.roles["jobs"].name
  member  = each.value
}

resource "google_service_account_iam_member" "kubernetes" {
  count = var.kubernetes_service_account == null ? 0 : 1

  service_account_id = google_service_account.writer.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project_id}.svc.id.goog[${var.kubernetes_service_account}]"
}
