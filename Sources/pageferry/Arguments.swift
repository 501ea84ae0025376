public import ArgumentParser
public import LinuxSystem
public import Logging
public import Workloads

extension AccessPattern: ExpressibleByArgument {}

extension Logger.Level: @retroactive ExpressibleByArgument {}

extension DeviceSpecification: ExpressibleByArgument {
    /// Reads one device, such as `broken:load`.
    public init?(argument: String) {
        do throws(WorkloadError) {
            try self.init(parsing: argument)
        } catch {
            return nil
        }
    }
}

extension SocketAddress: ExpressibleByArgument {
    /// Reads what ``SocketAddress/init(_:)`` reads.
    public init?(argument: String) {
        do throws(SocketAddressError) {
            try self.init(argument)
        } catch {
            return nil
        }
    }
}
