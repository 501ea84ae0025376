public import ArgumentParser
import LinuxSystem
public import Logging
import Workloads

extension Logger.Level: @retroactive ExpressibleByArgument {}

/// Reads one device, such as `broken:load`.
func readDevice(_ text: String) throws -> DeviceSpecification {
    do throws(WorkloadError) {
        return try DeviceSpecification(parsing: text)
    } catch {
        throw ValidationError("\(error)")
    }
}

/// Reads a time.
func readTime(_ text: String) throws -> TimeSpan {
    try read(text, "write a number with its unit: ns, us, ms or s, such as 500ms")
}

/// Reads a guest of another program.
func readGuest(_ text: String) throws -> GuestOption {
    try read(text, "write firecracker:PATH, with the path of Firecracker's API socket, of 1 to 107 bytes")
}

/// Reads where a run lease is kept.
func readLease(_ text: String) throws -> LeaseOption {
    try read(text, "write DIR/NAME: a folder that both hosts mount, and the workload's name in it")
}

/// Reads a value, or says which form it has.
private func read<Value: ExpressibleByArgument>(_ text: String, _ form: String) throws -> Value {
    guard let value = Value(argument: text) else { throw ValidationError(form) }
    return value
}

/// Reads what ``SocketAddress/init(_:)`` reads.
func readAddress(_ text: String) throws -> SocketAddress {
    do throws(SocketAddressError) {
        return try SocketAddress(text)
    } catch {
        throw ValidationError(error.reason)
    }
}
