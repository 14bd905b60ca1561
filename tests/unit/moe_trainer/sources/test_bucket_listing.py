from datetime import UTC, datetime

from moe_trainer.sources.bucket_listing import Keys, signed


def test_a_request_is_signed_as_in_amazons_example() -> None:
    """GET Bucket (List Objects), in "Signature Calculations for the Authorization Header" of Amazon S3's API reference."""
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    now = datetime(2013, 5, 24, tzinfo=UTC)
    made = signed(keys, "us-east-1", "examplebucket.s3.amazonaws.com", "/", "max-keys=2&prefix=J", now)
    assert made["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    )


def test_the_token_of_temporary_keys_is_signed_too() -> None:
    made = signed(Keys("id", "secret", "token"), "r", "h", "/b", "", datetime(2026, 1, 1, tzinfo=UTC))
    assert made["x-amz-security-token"] == "token"
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token" in made["Authorization"]
