/// `container-files`: serves shared folders to one VM, over one stream of FUSE messages.
///
/// Started by the runtime driver, one per VM that has shares; it does not need the daemon
/// afterwards and ends when the VM closes its end.
///
///   container-files --socket-fd N --config-fd M
///
/// N: the connected stream. M: the configuration, JSON:
///   {"shares": [{"name", "path", "read_only"}], "mapped_ownership": bool}

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "base/json.h"
#include "base/log.h"
#include "files/confine.h"
#include "files/message.h"
#include "files/server.h"

namespace {

using base::ErrorCode;
using base::Result;

struct Arguments {
  int socket = -1;
  int config = -1;
};

Result<Arguments> parse(int count, char** values) {
  Arguments arguments;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string_view flag = values[i];
    if (flag == "--socket-fd") arguments.socket = std::atoi(values[i + 1]);
    if (flag == "--config-fd") arguments.config = std::atoi(values[i + 1]);
  }
  if (arguments.socket < 0 || arguments.config < 0)
    return base::fail(ErrorCode::InvalidArgument,
                      "usage: container-files --socket-fd N --config-fd M");
  return arguments;
}

Result<files::ServerOptions> read_configuration(int fd) {
  constexpr size_t configuration_bytes_max = 1 << 20;
  std::string text;
  char buffer[4096];
  while (const size_t count = TRY(base::read_some(fd, buffer))) {
    text.append(buffer, count);
    if (text.size() > configuration_bytes_max)
      return base::fail(ErrorCode::InvalidArgument, "the configuration is too large");
  }
  const nlohmann::json json = TRY(base::parse_json(text));
  files::ServerOptions options;
  options.mapped_ownership = base::json_bool_or(json, "mapped_ownership", false);
  if (!json.contains("shares") || !json["shares"].is_array())
    return base::fail(ErrorCode::InvalidArgument, "'shares' must be a list");
  for (const nlohmann::json& entry : json["shares"]) {
    auto& share = options.shares.emplace_back();
    share.name = TRY(base::json_string(entry, "name"));
    share.path = TRY(base::json_string(entry, "path"));
    share.read_only = base::json_bool_or(entry, "read_only", false);
  }
  return options;
}

/// The next whole request in `pending`, which is refilled from the stream; empty at its end.
Result<std::string> next_request(int socket, std::string& pending) {
  for (;;) {
    uint32_t length = 0;
    if (pending.size() >= sizeof length) std::memcpy(&length, pending.data(), sizeof length);
    const bool known = pending.size() >= sizeof length;
    if (known && (length < sizeof(fuse_in_header) || length > files::request_bytes_max))
      return base::fail(ErrorCode::InvalidArgument, "a request of {} bytes", length);
    if (known && pending.size() >= length) {
      std::string request = pending.substr(0, length);
      pending.erase(0, length);
      return request;
    }
    char buffer[64 * 1024];
    const size_t count = TRY(base::read_some(socket, buffer));
    if (count == 0) return std::string();
    pending.append(buffer, count);
  }
}

Result<> serve(int count, char** values) {
  const Arguments arguments = TRY(parse(count, values));
  const files::ServerOptions options = TRY(read_configuration(arguments.config));
  const std::unique_ptr<files::FileServer> server = TRY(files::FileServer::create(options));
  ::umask(0);
  std::string missing;
  TRY_DURING(files::confine(options.shares, missing), "confine");
  if (!missing.empty()) spdlog::warn("serving without confinement by path: {}", missing);
  std::string pending;
  for (;;) {
    const std::string request = TRY(next_request(arguments.socket, pending));
    if (request.empty()) return {};
    if (const std::optional<std::string> reply = server->handle(request))
      TRY(base::write_all(arguments.socket, *reply));
  }
}

}  // namespace

int main(int count, char** values) {
  base::start_log("container-files", "", false);
  const Result<> served = serve(count, values);
  if (served) return 0;
  spdlog::error("{}", served.error().to_string());
  return 1;
}
