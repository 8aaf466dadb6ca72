#include "runtime/zygote/rehearsal.h"

#include <csignal>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/text.h"
#include "runtime/process_config.h"

namespace runtime {
namespace {

using base::Deadline;
using base::Result;

/// Until `wanted` has come; empty: to the end.
Result<> read_until(AgentStream& stream, std::string_view wanted, const Deadline& deadline) {
  std::string text;
  while (wanted.empty() || text.find(wanted) == std::string::npos) {
    const std::string bytes = TRY(stream.read(deadline));
    if (bytes.empty()) return {};
    text += bytes;
  }
  return {};
}

Result<> send(AgentClient& agent, const std::string& path, const nlohmann::json& body,
              const Deadline& deadline) {
  TRY(agent.call("POST", path, base::dump_json(body), deadline));
  return {};
}

/// The whole body of an answer; what the agent refused is an error.
Result<std::string> body_of(AgentStream& stream, const std::string& path,
                            const Deadline& deadline) {
  AgentReply reply{.status = TRY(stream.status(deadline)), .body = {}};
  for (;;) {
    const std::string bytes = TRY(stream.read(deadline));
    if (bytes.empty()) break;
    reply.body += bytes;
  }
  if (reply.status >= 400) return tl::unexpected(error_of_reply(reply, path));
  return std::move(reply.body);
}

/// Makes the container; its events.
Result<std::shared_ptr<AgentStream>> begin(AgentClient& agent, guest::ContainerConfig config,
                                           const Deadline& deadline) {
  TRY(agent.await_connected(deadline));
  config.wall_ns = base::wall_time_ns();
  config.entropy_hex = base::random_hex(32);
  TRY(send(agent, "/v1/container", guest::to_json(config), deadline));
  return agent.open("GET", "/v1/events?after=0", false, deadline);
}

/// What `process` prints, to its end.
Result<> follow(AgentClient& agent, AgentStream& events, const std::string& process,
                const Deadline& deadline) {
  const auto output =
      TRY(agent.open("GET", "/v1/processes/" + process + "/output?offset=0", false, deadline));
  TRY(read_until(*output, "", deadline));
  return read_until(events, "exited", deadline);
}

Result<> end(AgentClient& agent, AgentStream& events, const Deadline& deadline) {
  events.cancel();
  return send(agent, "/v1/rehearsal", nlohmann::json::object(), deadline);
}

/// A step with or without a network, as RUN makes it; the layer it leaves.
Result<std::string> take_step(AgentClient& agent, AgentStream& events, const std::string& id,
                              bool network, const Deadline& deadline) {
  guest::StepConfig step;
  step.id = id;
  step.process = rehearsed_container(0).process;
  step.network = network;
  step.hostname = "build";
  TRY(send(agent, "/v1/steps", guest::to_json(step), deadline));
  TRY(follow(agent, events, std::string(guest::step_process_prefix) + id, deadline));
  const std::string path = "/v1/layers/" + id;
  const auto stream = TRY(agent.open("GET", path, false, deadline));
  return body_of(*stream, path, deadline);
}

Result<> add_layer(AgentClient& agent, const std::string& id, const std::string& layer,
                   const Deadline& deadline) {
  const std::string path = "/v1/layers/" + id;
  const auto stream = TRY(agent.open("POST", path, true, deadline));
  TRY(stream->write(layer, deadline));
  stream->finish_writing();
  TRY(body_of(*stream, path, deadline));
  return {};
}

}  // namespace

guest::ContainerConfig rehearsed_container(uint32_t nics) {
  reconciler::StartRequest request;
  request.setup.id = "rehearsal";
  request.hosts = "127.0.0.1 localhost\n::1 localhost\n192.168.64.2 rehearsal\n";
  request.resolv_conf = "nameserver 192.168.64.1\n";
  request.setup.service.command =
      std::vector<std::string>{"/proc/self/exe", std::string(guest::rehearsal_word)};
  for (uint32_t i = 0; i < nics; ++i) {
    reconciler::NetworkLease lease;
    lease.mac = fmt::format("02:00:00:00:01:{:02x}", i);
    lease.address = fmt::format("192.168.{}.2/24", 64 + i);
    if (i == 0) lease.gateway = "192.168.64.1";
    request.leases.push_back(std::move(lease));
  }
  guest::ContainerConfig config = container_config(request).value_or(guest::ContainerConfig{});
  config.layers = {1};  // The kernel's modules: a layer like any other.
  config.rehearsal = true;
  return config;
}

Result<> rehearse_container(AgentClient& agent, uint32_t nics, const Deadline& deadline) {
  const auto events = TRY(begin(agent, rehearsed_container(nics), deadline));
  TRY(follow(agent, *events, std::string(guest::main_process_id), deadline));
  return end(agent, *events, deadline);
}

Result<> rehearse_build(AgentClient& agent, uint32_t nics, const Deadline& deadline) {
  guest::ContainerConfig config = rehearsed_container(nics);
  config.build = true;
  const auto events = TRY(begin(agent, config, deadline));
  const std::string layer = TRY(take_step(agent, *events, "first", false, deadline));
  TRY(add_layer(agent, "between", layer, deadline));
  TRY(take_step(agent, *events, "second", true, deadline));
  const std::string main(guest::main_process_id);
  TRY(send(agent, "/v1/processes/" + main + "/signal", {{"signal", SIGTERM}}, deadline));
  TRY(read_until(*events, "exited", deadline));
  return end(agent, *events, deadline);
}

}  // namespace runtime
