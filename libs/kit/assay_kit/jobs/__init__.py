"""Long work that survives a restart of its service.

A job is a DBOS workflow; its id is the workflow's id, so asking twice is asking once. What happens to a job is written to an
event log in the same database; the log says where an ended job stands, and it is what a watcher reads, from the first event.

    jobs = Jobs(service="training", settings=settings, publish=None)
    jobs.kind("sft", run_sft)                    # run_sft(context, spec) -> result, all JSON
    app = App(..., doors=[job_door(jobs)], startup=jobs.launch, shutdown=jobs.shutdown)

Jobs                a service's kinds of work and the jobs there are
JobContext          what a job at work is given: steps, progress, cancellation, child jobs
JobCancelled        raised in a job that somebody cancelled: remove what is half done
JobInterrupted      raised in a job whose service ends: keep what is done, the job goes on after the restart
JobServicer         assay.jobs.v1.JobService over `Jobs`; job_door(jobs) mounts it
JobRequestWorker    takes jobs from Kafka
"""

from assay_kit.jobs.context import JobCancelled, JobContext, JobInterrupted
from assay_kit.jobs.engine import Jobs
from assay_kit.jobs.requests import JobRequestWorker
from assay_kit.jobs.servicer import JobServicer, job_door

__all__ = ["JobCancelled", "JobContext", "JobInterrupted", "JobRequestWorker", "JobServicer", "Jobs", "job_door"]
