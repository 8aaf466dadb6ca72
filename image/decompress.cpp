#include "image/decompress.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include "base/fd.h"

namespace image {
namespace {

using base::ErrorCode;
using base::Result;

constexpr size_t input_bytes = 256u << 10;
constexpr int zstd_window_log_max = 27;  ///< 128 MiB: what `zstd` itself accepts by default.

/// The stream's unread bytes, refilled from the source.
class Input {
 public:
  explicit Input(ByteSource source) : source_(std::move(source)), buffer_(input_bytes) {}

  std::span<char> unread() { return {buffer_.data() + at_, end_ - at_}; }
  void consume(size_t count) { at_ += count; }

  /// Makes at least `count` bytes readable if the source has them; false where it has not.
  Result<bool> want(size_t count) {
    while (end_ - at_ < count) {
      if (at_ > 0) {
        std::memmove(buffer_.data(), buffer_.data() + at_, end_ - at_);
        end_ -= std::exchange(at_, 0);
      }
      const size_t got = TRY(source_({buffer_.data() + end_, buffer_.size() - end_}));
      if (got == 0) return false;
      end_ += got;
    }
    return true;
  }

 private:
  ByteSource source_;
  std::vector<char> buffer_;
  size_t at_ = 0;
  size_t end_ = 0;
};

bool starts_gzip(std::span<const char> bytes) {
  return bytes.size() >= 2 && bytes[0] == '\x1f' && bytes[1] == '\x8b';
}

bool starts_zstd(std::span<const char> bytes) {
  if (bytes.size() < 4) return false;
  uint32_t magic = 0;
  std::memcpy(&magic, bytes.data(), sizeof magic);
  constexpr uint32_t skippable = 0x184D2A50;  // and the 15 that follow
  return magic == ZSTD_MAGICNUMBER || (magic & 0xFFFFFFF0u) == skippable;
}

class Plain final : public Decompressor {
 public:
  explicit Plain(Input input) : input_(std::move(input)) {}
  Result<size_t> read(std::span<char> buffer) override {
    if (!TRY(input_.want(1))) return size_t{0};
    const std::span<char> unread = input_.unread();
    const size_t count = std::min(unread.size(), buffer.size());
    std::memcpy(buffer.data(), unread.data(), count);
    input_.consume(count);
    return count;
  }

 private:
  Input input_;
};

class Gzip final : public Decompressor {
 public:
  explicit Gzip(Input input) : input_(std::move(input)), state_(std::make_unique<inflate_state>()) {
    isal_inflate_init(state_.get());
    state_->crc_flag = ISAL_GZIP;
  }

  Result<size_t> read(std::span<char> buffer) override {
    state_->next_out = reinterpret_cast<uint8_t*>(buffer.data());
    state_->avail_out = static_cast<uint32_t>(std::min<size_t>(buffer.size(), 1u << 30));
    const uint32_t wanted = state_->avail_out;
    while (state_->avail_out == wanted && !finished_) TRY(step());
    return size_t{wanted - state_->avail_out};
  }

 private:
  Result<> step() {
    const bool more = TRY(input_.want(1));
    const std::span<char> unread = input_.unread();
    state_->next_in = reinterpret_cast<uint8_t*>(unread.data());
    state_->avail_in = static_cast<uint32_t>(unread.size());
    const uint32_t room = state_->avail_out;
    const int status = isal_inflate(state_.get());
    if (status < 0)
      return base::fail(ErrorCode::InvalidArgument, "the gzip stream is damaged ({})",
                        status == ISAL_INCORRECT_CHECKSUM ? "wrong checksum" : "invalid data");
    input_.consume(unread.size() - state_->avail_in);
    if (state_->block_state == ISAL_BLOCK_FINISH) return next_member();
    if (!more && state_->avail_out == room)
      return base::fail(ErrorCode::InvalidArgument, "the gzip stream ends too early");
    return {};
  }

  Result<> next_member() {
    TRY(input_.want(2));
    if (input_.unread().empty()) {
      finished_ = true;
      return {};
    }
    if (!starts_gzip(input_.unread()))
      return base::fail(ErrorCode::InvalidArgument, "unknown bytes follow the gzip stream");
    isal_inflate_reset(state_.get());
    state_->crc_flag = ISAL_GZIP;
    return {};
  }

  Input input_;
  std::unique_ptr<inflate_state> state_;  // 80 KiB with its tables
  bool finished_ = false;
};

class Zstd final : public Decompressor {
 public:
  explicit Zstd(Input input) : input_(std::move(input)), context_(ZSTD_createDCtx()) {
    ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, zstd_window_log_max);
  }

  Result<size_t> read(std::span<char> buffer) override {
    ZSTD_outBuffer out{buffer.data(), buffer.size(), 0};
    while (out.pos == 0) {
      const bool more = TRY(input_.want(1));
      if (!more && frame_done_) return size_t{0};
      const std::span<char> unread = input_.unread();
      ZSTD_inBuffer in{unread.data(), unread.size(), 0};
      const size_t status = ZSTD_decompressStream(context_.get(), &out, &in);
      if (ZSTD_isError(status) != 0)
        return base::fail(ErrorCode::InvalidArgument, "the zstd stream is damaged ({})",
                          ZSTD_getErrorName(status));
      input_.consume(in.pos);
      frame_done_ = status == 0;
      if (!more && !frame_done_ && out.pos == 0)
        return base::fail(ErrorCode::InvalidArgument, "the zstd stream ends too early");
    }
    return out.pos;
  }

 private:
  struct Free {
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };
  Input input_;
  std::unique_ptr<ZSTD_DCtx, Free> context_;
  bool frame_done_ = true;
};

}  // namespace

ByteSource read_from(int fd) {
  return [fd](std::span<char> buffer) { return base::read_some(fd, buffer); };
}

Result<std::unique_ptr<Decompressor>> open_decompressor(ByteSource source) {
  Input input(std::move(source));
  TRY(input.want(4));
  const std::span<const char> head = input.unread();
  if (starts_gzip(head)) return std::make_unique<Gzip>(std::move(input));
  if (starts_zstd(head)) return std::make_unique<Zstd>(std::move(input));
  return std::make_unique<Plain>(std::move(input));
}

Result<ByteSource> decompressed(ByteSource source) {
  // std::function wants a copyable callable.
  std::shared_ptr<Decompressor> shared = TRY(open_decompressor(std::move(source)));
  return ByteSource([shared](std::span<char> buffer) { return shared->read(buffer); });
}

}  // namespace image
