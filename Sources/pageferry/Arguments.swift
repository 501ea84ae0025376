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

/// Reads what ``SocketAddress/init(_:)`` reads.
func readAddress(_ text: String) throws -> SocketAddress {
    do throws(SocketAddressError) {
        return try SocketAddress(text)
    } catch {
        throw ValidationError(error.reason)
    }
}
