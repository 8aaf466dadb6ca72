/// How fast a layer becomes a disk: read, inflate, hash twice, lay out, write, sync.
///
/// IMAGE_BENCH_LAYER names a layer (gzip, zstd or plain tar) to measure instead of the made one.

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <isa-l/igzip_lib.h>

#include "base/file.h"
#include "image/decompress.h"
#include "image/layer.h"
#include "image/test_archive.h"

namespace fs = std::filesystem;

namespace {

constexpr size_t piece_bytes = 256u << 10;

struct Case {
  fs::path folder;
  std::unique_ptr<image::Store> store;
  image::Descriptor layer;
  std::string diff_id;
  uint64_t unpacked_bytes = 0;
  std::optional<image::Lease> lease;  ///< Ends before its store.
  ~Case() { fs::remove_all(folder); }
};

std::string gzip(std::string bytes) {
  std::string packed(bytes.size() + 4096, '\0');
  isal_zstream stream{};
  isal_deflate_stateless_init(&stream);
  stream.gzip_flag = IGZIP_GZIP;
  stream.end_of_stream = 1;
  stream.next_in = reinterpret_cast<uint8_t*>(bytes.data());
  stream.avail_in = static_cast<uint32_t>(bytes.size());
  stream.next_out = reinterpret_cast<uint8_t*>(packed.data());
  stream.avail_out = static_cast<uint32_t>(packed.size());
  isal_deflate_stateless(&stream);
  packed.resize(stream.total_out);
  return packed;
}

/// 4,000 files of 16 KiB that compress about as well as programs do.
std::string made_layer() {
  std::vector<image_test::Member> members;
  uint32_t noise = 1;
  for (int i = 0; i < 4000; ++i) {
    std::string content(16u << 10, 'x');
    for (size_t at = 0; at < content.size(); at += 3) {
      noise = noise * 1664525 + 1013904223;
      content[at] = static_cast<char>(noise >> 24);
    }
    members.push_back({.name = fmt::format("usr/lib/{}/file-{}", i % 100, i), .content = content});
  }
  return gzip(image_test::tar(members));
}

base::Result<> put(Case& made, const image::ByteSource& source) {
  made.lease.emplace(made.store->lease());
  image::PieceWriter writer = TRY(made.store->begin_put(*made.lease));
  std::vector<char> piece(piece_bytes);
  uint64_t at = 0;
  while (const size_t count = TRY(source(piece))) {
    TRY(writer.write_at(at, {piece.data(), count}));
    at += count;
  }
  made.layer = TRY(made.store->finish_put(std::move(writer), std::nullopt));
  const base::UniqueFd blob = TRY(made.store->open_blob(made.layer.digest));
  const image::ByteSource content = TRY(image::decompressed(image::read_from(blob.get())));
  image::Sha256 hash;
  while (const size_t count = TRY(content(piece))) {
    hash.update({piece.data(), count});
    made.unpacked_bytes += count;
  }
  made.diff_id = hash.finish();
  return {};
}

base::Result<> prepare(Case& made) {
  std::string folder = (fs::temp_directory_path() / "image-bench-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) return base::fail_errno(errno, "make a folder");
  made.folder = folder;
  made.store = TRY(image::Store::open(folder + "/images"));
  if (const char* path = std::getenv("IMAGE_BENCH_LAYER")) {
    const base::UniqueFd file = TRY(base::open_file(path, O_RDONLY));
    return put(made, image::read_from(file.get()));
  }
  const std::string layer = made_layer();
  size_t at = 0;
  return put(made, [&](std::span<char> buffer) -> base::Result<size_t> {
    const size_t count = layer.copy(buffer.data(), buffer.size(), at);
    at += count;
    return count;
  });
}

void layer_to_disk(benchmark::State& state) {
  Case made;
  if (const auto prepared = prepare(made); !prepared)
    return state.SkipWithError(prepared.error().to_string().c_str());
  for (auto _ : state) {
    if (const auto disk = image::make_layer(*made.store, *made.lease, made.layer, made.diff_id);
        !disk)
      return state.SkipWithError(disk.error().to_string().c_str());
    state.PauseTiming();
    fs::remove(made.store->layer_path(made.diff_id));
    state.ResumeTiming();
  }
  state.SetBytesProcessed(static_cast<int64_t>(made.unpacked_bytes) * state.iterations());
}
BENCHMARK(layer_to_disk)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
