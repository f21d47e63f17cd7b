"""From the images of an upload to an accepted job, or to more chunks of an open one."""
