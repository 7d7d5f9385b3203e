output "service_account_email" {
  description = "The account to run as: attach it to a machine, a job or a Kubernetes service account."
  value       = google_service_account.writer.email
}

output "environment" {
  description = "The destination as lines of an environment file."
  value       = <<-LINES
    PIXARIS_SYNC_GCP_PROJECT_ID=${var.project_id}
    PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET=${var.project_id}.${google_bigquery_dataset.results.dataset_id}
    PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME=${google_storage_bucket.results.name}
  LINES
}
