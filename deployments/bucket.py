"""Create the bucket PORTRAIT_BUCKET at the S3 server that AWS_ENDPOINT_URL names, unless it exists."""

import os

import s3fs


def main() -> None:
    """Create the bucket."""
    bucket = os.environ.get("PORTRAIT_BUCKET", "portrait")
    server = s3fs.S3FileSystem()
    if not server.exists(bucket):
        server.mkdir(bucket)


if __name__ == "__main__":
    main()
