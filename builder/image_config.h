#pragma once
/// The config of an image while a stage is built: what each instruction changes in it, and the
/// history it leaves, as Docker does both.
///
/// Kept as the JSON of the OCI Image Specification with Docker's additions (Healthcheck, OnBuild,
/// Shell), so that what a base image brings and we do not know stays as it is. Values are already
/// expanded. Pure.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "builder/dockerfile.h"
#include "image/manifest.h"

namespace builder {

/// What a shell-form command runs in where no SHELL was given.
std::vector<std::string> default_shell();
/// PATH of images that bring none.
inline constexpr std::string_view default_path =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

class ImageConfig {
 public:
  /// An empty image of that platform.
  static ImageConfig scratch(const image::Platform& platform);
  /// Of a base image. The triggers it keeps for us are taken with take_triggers().
  static base::Result<ImageConfig> from_json(nlohmann::json document);

  /// `K=V`, in the order they were set first.
  std::vector<std::string> environment() const;
  std::optional<std::string> variable(std::string_view name) const;
  std::string working_dir() const;  ///< Absolute; "/" where none was set.
  std::string user() const;
  std::vector<std::string> shell() const;
  image::Platform platform() const;
  std::string created() const;  ///< RFC 3339, or empty.

  void set_variable(const std::string& name, const std::string& value);
  void set_label(const std::string& name, const std::string& value);
  /// Relative ones start from the one before; the new one, clean.
  std::string set_working_dir(const std::string& path);
  void set_user(const std::string& user);
  void set_author(const std::string& text);
  void set_stop_signal(const std::string& signal);
  void set_shell(const std::vector<std::string>& words);
  /// Exec form; what shell form becomes is shell_words().
  void set_command(const std::vector<std::string>& words);
  /// Also forgets a CMD that came with the base image.
  void set_entrypoint(const std::vector<std::string>& words);
  void add_volume(const std::string& path);
  /// `80`, `80/udp`, `8000-8010/tcp`.
  base::Result<> expose(const std::string& ports);
  base::Result<> set_health_check(const HealthcheckInstruction& instruction);
  void add_trigger(const std::string& text);
  /// ONBUILD instructions of the base image; they run once and are not passed on.
  std::vector<std::string> take_triggers();

  /// argv of a command in this stage's shell, or as it is.
  std::vector<std::string> command_words(const CommandLine& command) const;

  /// `created` may be empty.
  void add_history(const std::string& created_by, const std::string& created, bool empty_layer);
  void add_layer(const std::string& diff_id);
  std::vector<std::string> diff_ids() const;
  /// Layers and history as `other` has them.
  void take_layers_of(const ImageConfig& other);
  void set_created(const std::string& created);

  /// All that a RUN could notice, and all the image says about itself: without history and times.
  nlohmann::json identity() const;
  const nlohmann::json& document() const { return document_; }

 private:
  explicit ImageConfig(nlohmann::json document) : document_(std::move(document)) {}
  nlohmann::json& inner() { return document_["config"]; }
  const nlohmann::json& inner() const { return document_.at("config"); }
  std::vector<std::string> texts(const char* key) const;

  nlohmann::json document_;
  bool command_is_ours_ = false;  ///< CMD was set in this stage.
};

}  // namespace builder
