#include "base/base64.h"

#include <doctest/doctest.h>

TEST_CASE("bytes become base64 and come back") {
  CHECK(base::encode_base64("") == "");
  CHECK(base::encode_base64("f") == "Zg==");
  CHECK(base::encode_base64("fo") == "Zm8=");
  CHECK(base::encode_base64("foo") == "Zm9v");
  CHECK(base::encode_base64("foob") == "Zm9vYg==");
  CHECK(*base::decode_base64("Zm9vYg==") == "foob");
  CHECK(*base::decode_base64("AP8Q") == std::string("\0\xff\x10", 3));
}

TEST_CASE("what is no base64 is refused") {
  CHECK_FALSE(base::decode_base64("Zg="));
  CHECK_FALSE(base::decode_base64("Z==="));
  CHECK_FALSE(base::decode_base64("Zg==Zg=="));
  CHECK_FALSE(base::decode_base64("Zm 9"));
  CHECK_FALSE(base::decode_base64("Zh=="));  // bits that stand for nothing
}
