#pragma once
/// A layer's disk, made from its blob as that goes by: decompressed, hashed, and read as a tar and
/// written as EROFS, each on a thread of its own.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>

#include "base/result.h"
#include "image/byte_pipe.h"
#include "image/erofs_writer.h"
#include "image/store.h"

namespace image {

class LayerDisk {
 public:
  /// Into `disk`, an empty file. Without finish() it is given up.
  LayerDisk(Ingest disk, std::string diff_id);
  ~LayerDisk();
  /// Blocks while the disk is far behind. InvalidArgument once the content is known to be bad.
  base::Result<> write(std::string_view compressed);
  /// The blob ends here: the whole disk. InvalidArgument if the content has another digest than
  /// `diff_id`, or a limit is passed.
  base::Result<Ingest> finish();

 private:
  void end(const base::Result<>& outcome);
  void inflate();
  base::Result<> pump();
  void make();
  base::Result<> write_disk();

  const std::string diff_id_;
  Ingest disk_;
  BytePipe compressed_;
  BytePipe content_;
  base::Result<> outcome_;  ///< Of the disk; read after its thread has been joined.
  std::thread inflating_;
  std::thread writing_;
};

/// How every layer's disk is written: its limits, and its identity, which is the layer's own, so
/// that the same layer is the same disk everywhere.
ErofsOptions layer_disk_options();
std::array<uint8_t, 16> layer_disk_uuid(const std::string& diff_id);

}  // namespace image
