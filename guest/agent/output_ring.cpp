#include "guest/agent/output_ring.h"

#include <algorithm>

#include "base/limits.h"

namespace agent {
namespace {

constexpr size_t piece_overhead_bytes = 128;
constexpr size_t piece_bytes_max = 16 * 1024;
constexpr size_t capacity = base::limits::agent_output_unacknowledged_bytes_max;

bool passes(OutputFilter filter, uint8_t stream) {
  switch (filter) {
    case OutputFilter::All: return true;
    case OutputFilter::Out: return stream == guest::output_stream_stdout;
    case OutputFilter::Err: return stream == guest::output_stream_stderr;
  }
  return true;
}

}  // namespace

size_t OutputRing::held_bytes() const {
  // The first piece is kept whole although its beginning may be acknowledged.
  const uint64_t first = pieces_.empty() ? end_ : pieces_.front().offset;
  return static_cast<size_t>(end_ - first) + pieces_.size() * piece_overhead_bytes;
}

size_t OutputRing::room() const {
  const size_t held = held_bytes() + piece_overhead_bytes;
  return held >= capacity ? 0 : capacity - held;
}

void OutputRing::append(uint8_t stream, std::string_view bytes) {
  while (!bytes.empty()) {
    if (pieces_.empty() || pieces_.back().stream != stream ||
        pieces_.back().bytes.size() >= piece_bytes_max)
      pieces_.push_back({stream, end_, {}});
    std::string& into = pieces_.back().bytes;
    const size_t count = std::min(bytes.size(), piece_bytes_max - into.size());
    into.append(bytes.substr(0, count));
    bytes.remove_prefix(count);
    end_ += count;
  }
}

base::Result<> OutputRing::acknowledge(uint64_t offset) {
  if (offset > end_)
    return base::fail(base::ErrorCode::InvalidArgument,
                      "offset {} is beyond the output's end at {}", offset, end_);
  begin_ = std::max(begin_, offset);
  while (!pieces_.empty() && pieces_.front().end() <= begin_) pieces_.pop_front();
  return {};
}

bool OutputRing::copy_frames(uint64_t& offset, OutputFilter filter, size_t bytes_max,
                             std::string& out) const {
  offset = std::max(offset, begin_);
  auto piece = std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                                [](uint64_t at, const Piece& each) { return at < each.end(); });
  const size_t before = out.size();
  for (; piece != pieces_.end() && out.size() - before < bytes_max; ++piece) {
    if (passes(filter, piece->stream)) {
      const size_t skip = static_cast<size_t>(offset - piece->offset);
      guest::append_output_frame(
          {piece->stream, offset, std::string_view(piece->bytes).substr(skip)}, out);
    }
    offset = piece->end();
  }
  return out.size() > before;
}

}  // namespace agent
