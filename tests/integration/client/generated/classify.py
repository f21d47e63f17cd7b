"""Classifies one picture with the client that openapi-python-client makes of docs/openapi.json.

python classify.py URL KEY PICTURE
"""

import sys
from pathlib import Path

from darkroom_generated.api.jobs import get_job, get_results, submit_job
from darkroom_generated.client import AuthenticatedClient
from darkroom_generated.models import ItemPage, JobResource, SubmitJobFilesBody
from darkroom_generated.types import File

url, key, picture = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key)
with Path(picture).open("rb") as file:
    body = SubmitJobFilesBody(files=[File(payload=file, file_name=picture)])
    job = submit_job.sync(client=client, body=body, top_k=3)
while isinstance(job, JobResource) and not job.completed_at:
    job = get_job.sync(job.id, client=client, wait=10)
assert isinstance(job, JobResource), job
page = get_results.sync(job.id, client=client)
assert isinstance(page, ItemPage), page
print(",".join(f"{item.class_} of {len(item.top_k or [])}" for item in page.items))
