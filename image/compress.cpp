#include "image/compress.h"

#include <string>
#include <utility>
#include <vector>

#include <isa-l/igzip_lib.h>

namespace image {
namespace {

/// What the encoder is given at once: where pieces end shows in its output.
constexpr size_t block_bytes = 256u << 10;
constexpr size_t output_bytes = 64u << 10;

}  // namespace

struct GzipWriter::State {
  isal_zstream stream{};
  std::vector<uint8_t> level_buffer = std::vector<uint8_t>(ISAL_DEF_LVL1_DEFAULT);
  std::vector<uint8_t> output = std::vector<uint8_t>(output_bytes);
  std::string block;  ///< Less than a block, waiting for the rest.
};

GzipWriter::GzipWriter(Sink sink) : sink_(std::move(sink)), state_(std::make_unique<State>()) {
  isal_deflate_init(&state_->stream);
  state_->stream.gzip_flag = IGZIP_GZIP;
  state_->stream.level = 1;
  state_->stream.level_buf = state_->level_buffer.data();
  state_->stream.level_buf_size = static_cast<uint32_t>(state_->level_buffer.size());
  state_->block.reserve(block_bytes);
}

GzipWriter::~GzipWriter() = default;

base::Result<> GzipWriter::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), block_bytes - state_->block.size());
    state_->block.append(bytes.substr(0, count));
    bytes.remove_prefix(count);
    if (state_->block.size() < block_bytes) break;
    TRY(deflate(state_->block, false));
    state_->block.clear();
  }
  return {};
}

base::Result<> GzipWriter::finish() { return deflate(state_->block, true); }

base::Result<> GzipWriter::deflate(std::string_view bytes, bool last) {
  isal_zstream& stream = state_->stream;
  // The library reads its input through a pointer to what it may not change.
  stream.next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uint32_t>(bytes.size());
  stream.end_of_stream = last ? 1 : 0;
  do {
    stream.next_out = state_->output.data();
    stream.avail_out = static_cast<uint32_t>(state_->output.size());
    if (const int status = isal_deflate(&stream); status != COMP_OK)
      return base::fail(base::ErrorCode::Internal, "gzip: the encoder says {}", status);
    const size_t made = state_->output.size() - stream.avail_out;
    if (made > 0) TRY(sink_({reinterpret_cast<const char*>(state_->output.data()), made}));
  } while (stream.avail_out == 0 || stream.avail_in > 0);
  return {};
}

}  // namespace image
