#include "cli/output_format.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using cli::render_document;
using nlohmann::json;

namespace {

const json images = json::parse(R"([
  {"name": "alpine: 3", "size": 12, "empty": [], "nothing": null,
   "platform": {"os": "linux", "odd key": true},
   "layers": ["a", "b\n"],
   "variants": [{"digest": "x", "of": {"n": 1}}, {"digest": "y"}]}
])");

}  // namespace

TEST_CASE("json is one line with sorted keys") {
  CHECK(render_document(json{{"b", 1}, {"a", "ä"}}, "json") == "{\"a\":\"ä\",\"b\":1}\n");
}

TEST_CASE("yaml is a block, every text quoted") {
  CHECK(render_document(images, "yaml") ==
        "- \"empty\": []\n"
        "  \"layers\":\n"
        "    - \"a\"\n"
        "    - \"b\\n\"\n"
        "  \"name\": \"alpine: 3\"\n"
        "  \"nothing\": null\n"
        "  \"platform\":\n"
        "    \"odd key\": true\n"
        "    \"os\": \"linux\"\n"
        "  \"size\": 12\n"
        "  \"variants\":\n"
        "    - \"digest\": \"x\"\n"
        "      \"of\":\n"
        "        \"n\": 1\n"
        "    - \"digest\": \"y\"\n");
  CHECK(render_document(json::array(), "yaml") == "[]\n");
}

TEST_CASE("toml calls a list items, and leaves out what is null") {
  CHECK(render_document(images, "toml") ==
        "\n[[items]]\n"
        "empty = []\n"
        "layers = [\"a\", \"b\\n\"]\n"
        "name = \"alpine: 3\"\n"
        "size = 12\n"
        "\n[items.platform]\n"
        "\"odd key\" = true\n"
        "os = \"linux\"\n"
        "\n[[items.variants]]\n"
        "digest = \"x\"\n"
        "\n[items.variants.of]\n"
        "n = 1\n"
        "\n[[items.variants]]\n"
        "digest = \"y\"\n");
  CHECK(render_document(json{{"images", {{"total", 1}}}}, "toml") == "\n[images]\ntotal = 1\n");
  CHECK(render_document(json::array(), "toml") == "items = []\n");
}
