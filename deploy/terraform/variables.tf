variable "project_id" {
  description = "The Google Cloud project that everything is made in, and that queries and load jobs run in."
  type        = string
}

variable "bucket_name" {
  description = "The bucket's name. Bucket names are unique worldwide."
  type        = string
}

variable "dataset_id" {
  description = "The BigQuery dataset's id."
  type        = string
  default     = "pixaris"
}

variable "location" {
  description = "Where bucket and dataset are, such as EU, US or europe-west3. Neither can be moved later."
  type        = string
  default     = "EU"
}

variable "service_account_id" {
  description = "The part of the service account's address in front of the @."
  type        = string
  default     = "pixaris-sync"
}

variable "role_prefix" {
  description = "What the ids of the custom roles begin with. One project holds each id once."
  type        = string
  default     = "pixaris_sync"
}

variable "readers" {
  description = "Who may read what was carried, such as user:somebody@example.com or group:team@example.com: `verify`, `pull`, `ui`, and handlers that load."
  type        = set(string)
  default     = []
}

variable "kubernetes_service_account" {
  description = "The Kubernetes service account, as NAMESPACE/NAME in a cluster of this project, that acts as the service account by workload identity."
  type        = string
  default     = null

  validation {
    condition     = var.kubernetes_service_account == null || can(regex("^[a-z0-9-]+/[a-z0-9.-]+$", var.kubernetes_service_account))
    error_message = "Name it as NAMESPACE/NAME."
  }
}

variable "soft_delete_days" {
  description = "For how many days what somebody deletes in the bucket can be restored: 0, or 7 to 90."
  type        = number
  default     = 7

  validation {
    condition     = var.soft_delete_days == 0 || (var.soft_delete_days >= 7 && var.soft_delete_days <= 90)
    error_message = "The service takes 0, or 7 to 90 days."
  }
}

variable "versioning" {
  description = "Whether the bucket keeps the older version of an object that is replaced or deleted. It is billed as long as it is kept."
  type        = bool
  default     = false
}
