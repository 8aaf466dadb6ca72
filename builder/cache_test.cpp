#include "builder/cache.h"

#include <filesystem>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/sha256.h"
#include "base/text.h"

namespace {

struct Place {
  std::string path = std::filesystem::temp_directory_path() / ("cache-" + base::random_hex(8));
  ~Place() { std::filesystem::remove(path); }
};

std::string key(const std::string& text) { return base::sha256_of(text); }

builder::CacheEntry entry(const std::string& layer, uint64_t size, int64_t used_s) {
  return {
      .layer = {.diff_id = base::sha256_of("diff " + layer),
                .blob = {.media_type = "layer", .digest = base::sha256_of(layer), .size = size}},
      .created = "2026-01-01T00:00:00Z",
      .used_s = used_s};
}

}  // namespace

TEST_CASE("what is put in the cache is there for the next daemon") {
  const Place place;
  {
    const auto cache = builder::Cache::open(place.path, 1000);
    cache->put(key("a"), entry("A", 10, 5));
    REQUIRE(cache->save());
  }

  const auto cache = builder::Cache::open(place.path, 1000);

  REQUIRE(cache->find(key("a"), 5));
  CHECK(cache->find(key("a"), 5)->layer == entry("A", 10, 5).layer);
  CHECK_FALSE(cache->find(key("b"), 5));
  CHECK(cache->digests() == std::set<std::string>{base::sha256_of("A"), base::sha256_of("diff A")});
}

TEST_CASE("over its limit the cache forgets what was not used for longest") {
  const Place place;
  const auto cache = builder::Cache::open(place.path, 25);
  cache->put(key("old"), entry("A", 10, 100));
  cache->put(key("older"), entry("B", 10, 50));
  cache->put(key("new"), entry("C", 10, 200));
  (void)cache->find(key("older"), 300);

  REQUIRE(cache->save());

  CHECK_FALSE(cache->find(key("old"), 300));
  CHECK(cache->find(key("older"), 300));
  CHECK(cache->find(key("new"), 300));
  CHECK(cache->bytes() == 20);
}

TEST_CASE("a layer under several keys counts once") {
  const Place place;
  const auto cache = builder::Cache::open(place.path, 1000);
  cache->put(key("a"), entry("A", 10, 1));
  cache->put(key("b"), entry("A", 10, 1));

  CHECK(cache->bytes() == 10);
}

TEST_CASE("a damaged cache is an empty one") {
  const Place place;
  REQUIRE(base::write_file_atomically(place.path, "{\"entries\": [{\"key\": \"../x\"}]}"));

  CHECK(builder::Cache::open(place.path, 1000)->entries() == 0);
}

TEST_CASE("pruning forgets everything, or what was not used lately") {
  const Place place;
  const auto cache = builder::Cache::open(place.path, 1000);
  cache->put(key("a"), entry("A", 10, 100));
  cache->put(key("b"), entry("B", 10, 200));

  CHECK(cache->prune(150) == 1);
  CHECK(cache->prune(std::nullopt) == 1);
  CHECK(cache->entries() == 0);
}
